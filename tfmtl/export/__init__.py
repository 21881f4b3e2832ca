"""A trained model as a SavedModel that takes raw features."""
