-- Returns the entry, or the shared result of the awaited call, or a decision: lead the call, or wait.
-- KEYS: entry, lease, shared result, wanted. ARGV: the caller's token (empty: read only), the lease in milliseconds, 1
-- if the caller has waited. Answers {decision, value, remaining milliseconds of the value or the lease}.
local entry = text(KEYS[1])
if entry then return {'entry', entry, redis.call('PTTL', KEYS[1])} end
if ARGV[1] == '' then return {'nothing', '', 0} end
if ARGV[3] == '1' then
  local landed = text(KEYS[3])
  if landed then return {'landed', landed, 0} end
end
if text(KEYS[2]) then
  local left = redis.call('PTTL', KEYS[2])
  -- A lease without an end, or with a later end, is another program's.
  if left >= 0 and left <= tonumber(ARGV[2]) then
    redis.call('SET', KEYS[4], '1', 'PX', ARGV[2])
    return {'wait', '', left}
  end
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return {'lead', '', 0}
