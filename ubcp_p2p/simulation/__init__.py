"""`ubcp simulate`: the allocator in a made-up community, against other rules and people who cheat; the budget curve."""
