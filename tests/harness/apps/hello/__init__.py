"""Hello-world applications as their frameworks' own pages have them, for the doctor."""
