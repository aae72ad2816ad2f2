"""Your own images in the app: added by a dialog, and removed again."""
