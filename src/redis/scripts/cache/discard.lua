-- Removes a value unless another one stands in its place by now. KEYS: entry. ARGV: the value.
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
