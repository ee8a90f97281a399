"""Workers: who takes jobs, and which jobs they are given."""
