-- Reads a string. A value of another type is another program's: it is removed, because it would block the key.
local function text(key)
  local value = redis.pcall('GET', key)
  if type(value) == 'table' and value.err then redis.call('DEL', key) return false end
  return value
end
