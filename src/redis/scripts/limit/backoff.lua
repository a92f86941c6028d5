-- The back-off of an account's endpoints over all nodes.
-- KEYS: a hash of the account: `ENDPOINT` = `step:end:end of the probe`, in microseconds of Redis' clock.
-- ARGV: the order, then the endpoint and what the order needs:
--   probe, endpoint, microseconds that a probe may take: answers {0 free, 1 granted or 2 not now, step, microseconds
--     left}
--   refused, endpoint, 1 if it was the probe, microseconds that Iluma asks for (-1: none), jitter from 1.0 on, and the
--     channel and account that tell the other nodes
--   succeeded, endpoint, channel, account; released, endpoint
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local order, endpoint = ARGV[1], ARGV[2]
local step, till, probe = string.match(redis.call('HGET', KEYS[1], endpoint) or '', '^(%d+):(%d+):(%d+)$')
local known = step ~= nil
step, till, probe = tonumber(step) or 0, tonumber(till) or 0, tonumber(probe) or 0

local function put()
  redis.call('HSET', KEYS[1], endpoint, string.format('%d:%.0f:%.0f', step, till, probe))
  redis.call('PEXPIRE', KEYS[1], 7200000)
end

if order == 'probe' then
  if not known then return {0, 0, 0} end
  if till > now then return {2, step, till - now} end
  if probe > now then return {2, step, math.min(probe - now, 100000)} end
  probe = now + tonumber(ARGV[3])
  put()
  return {1, step, 0}
elseif order == 'refused' then
  local is_probe, asked = ARGV[3] == '1', tonumber(ARGV[4])
  if not known then step = 1 elseif is_probe then step = step + 1 end
  local wait = asked
  if asked < 0 then wait = math.min(60000000, 1000000 * 2 ^ math.min(step - 1, 10)) * tonumber(ARGV[5]) end
  local before = till
  if not known or is_probe then
    till, probe = now + wait, 0
  elseif asked >= 0 then
    till = math.max(till, now + wait)
  end
  put()
  -- Only a refusal that moves the end is published: of calls that were in flight together, usually the first one.
  if till ~= before then redis.call('PUBLISH', ARGV[6], ARGV[7]) end
elseif order == 'succeeded' then
  redis.call('HDEL', KEYS[1], endpoint)
  redis.call('PUBLISH', ARGV[3], ARGV[4])
elseif known then
  probe = 0
  put()
end
return {0, 0, 0}
