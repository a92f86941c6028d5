-- Removes up to 500 entries that are indexed by a tag. Answers the number of indexed entries (-1: a set had another
-- program's type) and the number of removed ones. KEYS: the sets of the tags.
for _, key in ipairs(KEYS) do
  local is = redis.call('TYPE', key).ok
  if is == 'set' then
    local entries = redis.call('SPOP', key, 500)
    return {#entries, redis.call('UNLINK', unpack(entries))}
  elseif is ~= 'none' then
    redis.call('DEL', key)
    return {-1, 0}
  end
end
return {0, 0}
