"""The sample app's own tests."""
