-- ARGV: id. Deletes a dead letter; answers `done`, `not_dead` or `unknown`.
local delivery = call('HMGET', key('delivery', ARGV[2]), 'standing', 'tenant', 'record')
if delivery[1] == 'dead' then
  -- The name stays, so that a repeat is recognised.
  move_delivery(ARGV[2], delivery[2], delivery[3], 'dead', 'known', now)
  return {now, 'done'}
end
local is_unowned = call('HEXISTS', key('callbacks:short'), ARGV[2]) == 1
local is_there = delivery[1] and delivery[1] ~= 'known' or is_unowned
return {now, is_there and 'not_dead' or 'unknown'}
