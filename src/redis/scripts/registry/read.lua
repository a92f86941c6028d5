-- Reads the shared copy of the registry, if it has changed.
-- KEYS: number of the last change, hash of rows. ARGV: the number that the caller knows; empty for none. Answers
-- {number, 1 if it is another one and else 0, rows as field and value}.
local number = redis.call('GET', KEYS[1]) or '0'
if number == ARGV[1] then return {number, 0, {}} end
return {number, 1, redis.call('HGETALL', KEYS[2])}
