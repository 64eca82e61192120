"""Self-contained HTML pages: the templates with their CSS and JavaScript, and what fills them."""
