SELECT sightline.create_view($1, $2, $3, 'building', $4)
