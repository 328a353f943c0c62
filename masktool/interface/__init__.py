"""What a Python program calls: the model found or exported into the cache, and handed to the floors below."""
