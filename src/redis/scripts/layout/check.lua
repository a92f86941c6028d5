-- Writes the version to a Redis that has no layout yet. KEYS: layout. ARGV: the caller's version. Answers the stored
-- version. A value that is no number is another program's: it is replaced.
local value = redis.pcall('GET', KEYS[1])
if type(value) ~= 'string' or not tonumber(value) then
  redis.call('SET', KEYS[1], ARGV[1])
  return ARGV[1]
end
return value
