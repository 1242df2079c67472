"""Keys of encrypted stores: where they come from, and the file in which a store's own key lies wrapped."""
