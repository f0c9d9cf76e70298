"""The secondary's brain and its parts: the conversation, the journal, and what the replica may call itself."""
