-- Removes a value unless it was replaced by another one. KEYS: entry. ARGV: the value.
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
