-- Stores a callback URL under the current key, unless the tenant has set another URL meanwhile.
-- KEYS: the tenant's URLs. ARGV: callback type, the envelope that was read, the new one.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
