"""Drafts and tree expansions: how proposals become a token tree."""
