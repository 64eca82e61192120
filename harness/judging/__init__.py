"""Is a candidate better than a baseline? Seeds are trained until that is settled, and every try
counts."""
