"""Evergreen: a recommender that knows when it has gone stale."""
