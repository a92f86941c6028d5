-- KEYS: the hash of the encryption keys' sentinels. ARGV: 1 to store missing ones, then names and fingerprints of
-- encryption keys. Answers the name of the first key that is stored with another fingerprint, or nothing.
local call = redis.call
for at = 2, #ARGV, 2 do
  local known = call('HGET', KEYS[1], ARGV[at])
  if known and known ~= ARGV[at + 1] then return ARGV[at] end
end
if ARGV[1] == '1' then
  for at = 2, #ARGV, 2 do call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
end
return ''
