"""The model zoo: cards that say what a model is, and where its weights lie."""
