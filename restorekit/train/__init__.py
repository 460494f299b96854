"""Training: recipes, losses, and the trainer."""
