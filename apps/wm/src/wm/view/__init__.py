"""Looking at a run: dreams, films, codes as pictures, and playing inside the model."""
