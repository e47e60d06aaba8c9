"""Federated algorithms: the site half and the server half of each on one screen."""
