"""Self-contained HTML pages: templates with CSS and JavaScript, and the values they show."""
