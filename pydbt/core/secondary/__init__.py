"""The secondary's brain and its parts: the session with a primary, the journal, and the states of the replica."""
