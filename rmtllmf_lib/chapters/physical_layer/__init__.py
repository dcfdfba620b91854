"""Tables, figures and findings of chapter 10."""
