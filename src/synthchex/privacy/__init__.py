"""Whether synthetic films are copies of films of patients."""
