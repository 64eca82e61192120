"""Self-contained HTML pages: the templates with their CSS and JavaScript, and the values they show."""
