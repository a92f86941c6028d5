-- ARGV: id, the fencing token, outcome (`delivered`, `dead`, `retry`, `probed`, `untried`), failed attempts, the time
-- of the next attempt, failed probes, the history of attempts, the news about the endpoint (`success`, `failure`,
-- `gone`, or empty), the time of failures that pauses an endpoint, the time between two probes. Answers 1 if the
-- outcome was stored.
local id, fate = ARGV[2], ARGV[4]
local name = key('delivery', id)
local delivery = call('HMGET', name, 'standing', 'turn', 'tenant', 'record', 'fleeting', 'due', 'kind')
if delivery[1] ~= 'queued' then return {now, 0} end
-- The lease ended and another claimant has the delivery: its outcome counts, unless the team has received it already.
if delivery[2] ~= ARGV[3] and fate ~= 'delivered' then return {now, 0} end
local tenant, record = delivery[3], delivery[4]

local function note_endpoint(endpoint, news)
  if news == '' then return end
  local pause = pause_of(endpoint)
  if news == 'success' then
    call('HDEL', key('failing'), endpoint)
    if pause and pause.reason == 'failing' then call('HDEL', key('pauses'), endpoint) end
    return
  end
  call('HSETNX', key('failing'), endpoint, string.format('%.0f', now))
  local failing = number(call('HGET', key('failing'), endpoint))
  if news == 'gone' and (not pause or pause.reason == 'failing') then
    set_pause(endpoint, {reason = 'gone', since = now})
  elseif not pause and now - failing >= tonumber(ARGV[10]) then
    set_pause(endpoint, {reason = 'failing', since = now, probe = now + tonumber(ARGV[11])})
  end
end

call('ZREM', key('held', tenant), id)
if fate == 'untried' then
  call('ZADD', key('ready', tenant), delivery[6], id)
  return {now, 1}
end
note_endpoint(endpoint(tenant, delivery[7]), ARGV[9])
call('HSET', name, 'attempts', ARGV[5], 'probes', ARGV[7], 'history', ARGV[8])
if fate == 'retry' or fate == 'probed' then
  call('ZREM', key('ready', tenant), id)
  move_delivery(id, tenant, record, 'queued', 'queued', fate == 'retry' and ARGV[6] or delivery[6])
else
  move_delivery(id, tenant, record, 'queued', delivery[5] == '1' and 'known' or fate, now)
end
return {now, 1}
