-- ARGV: record, tenant, the reference's name, the reference, kind, 1 if it awaits a callback, the time of the request,
-- the largest number of waiting references, the largest number of callbacks to release, persons. Answers the number of
-- released callbacks.
local record, tenant, kind = ARGV[2], ARGV[3], ARGV[6]
local erased = erased_since(11, #ARGV, tonumber(ARGV[8]))
local reference = erased and '' or ARGV[5]
local before = call('HGET', key('owners', record), tenant)
before = before and cmsgpack.unpack(before) or {}
set_owner(record, tenant, {
  since = now,
  kind = kind ~= '' and kind or before.kind or '',
  reference = reference,
  erased = erased or before.erased or false,
})
call('ZADD', key('owners'), now, record .. tenant)
if not erased then note_persons(11, #ARGV, record) end
if ARGV[7] ~= '1' then return {now, 0} end
local awaiting = key('awaiting', record .. tenant)
if call('HLEN', awaiting) < tonumber(ARGV[9]) and call('HSETNX', awaiting, ARGV[4], reference) == 1 then
  call('HSET', key('owners', record), TOUCHED, event())
end
-- The release is repeated, in case an earlier run was interrupted.
return {now, release(record, tonumber(ARGV[10]))}
