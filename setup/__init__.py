"""The machine that sets itself up: `python3 -m setup`, for any Python 3.11 before there is an environment."""
