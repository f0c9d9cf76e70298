"""The dashboard: one thread that asks the controllers, and a server of pages that only tells what it heard."""
