-- Removes up to 500 entries that are indexed by a tag. Answers the number of indexed entries (-1: a set had another
-- program's type) and the number of removed ones. KEYS: the sets of the tags.
for _, key in ipairs(KEYS) do
  local is = redis.call('TYPE', key).ok
  if is == 'set' then
    local entries, removed = redis.call('SPOP', key, 500), 0
    for _, entry in ipairs(entries) do
      local unlinked = redis.call('UNLINK', entry)
      -- An entry and its copy count once.
      if string.sub(entry, -5) ~= ':copy' then removed = removed + unlinked end
    end
    return {#entries, removed}
  elseif is ~= 'none' then
    redis.call('DEL', key)
    return {-1, 0}
  end
end
return {0, 0}
