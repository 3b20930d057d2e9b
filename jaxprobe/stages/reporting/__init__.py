"""What the report stage is made of: findings, then figures, the page and the terminal's table."""
