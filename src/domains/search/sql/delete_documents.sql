DELETE FROM search_documents WHERE user_key = ANY ($1)
