"""Terms of a glossary by a search for translations that hold them."""
