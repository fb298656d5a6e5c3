"""Of the bench: that its account is right."""
