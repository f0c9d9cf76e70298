"""``controller trace``: where its records come from, and where they go."""
