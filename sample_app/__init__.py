"""A small app to deploy: notes in SQLite, and each kind of traffic that a deployment can break."""
