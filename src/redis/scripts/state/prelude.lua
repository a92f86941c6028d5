-- The prelude of every script: the time, the names of keys, and the moves from one status to another.
--
-- KEYS[1] is the prefix of the names of all keys of state: it also routes the script to the node that owns their slot.
-- ARGV[1] is the number of milliseconds by which a test has moved the clock; a script's own arguments begin at ARGV[2].
-- A script answers {the time here, its answer}. Absent texts are empty. No key has an expiry, because a Redis may evict
-- keys with one. If an entry was evicted all the same, the entries that point to it are removed.

local call = redis.call
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + tonumber(ARGV[1])

local function key(what, name)
  if name then return KEYS[1] .. what .. ':' .. name end
  return KEYS[1] .. what
end

-- Returns the next event number: events are new owners, hand-outs of callbacks and deliveries, and replays.
local function event()
  return call('INCR', key('events'))
end

-- Returns a number, or 0 if the text is absent.
local function number(text)
  return text and tonumber(text) or 0
end

-- Returns the first due members of a sorted set.
local function due_in(set, most)
  return call('ZRANGEBYSCORE', set, '-inf', now, 'LIMIT', 0, most)
end

-- Owners: a hash for each record, by tenant {since, kind, reference, erased}, and the event number of the last new
-- owner.

local TOUCHED = ':touched'

local function owners(record)
  local found, fields = {}, call('HGETALL', key('owners', record))
  for at = 1, #fields, 2 do
    if fields[at] ~= TOUCHED then found[fields[at]] = cmsgpack.unpack(fields[at + 1]) end
  end
  return found
end

local function set_owner(record, tenant, owner)
  call('HSET', key('owners', record), tenant, cmsgpack.pack(owner))
end

local function touched(record)
  return number(call('HGET', key('owners', record), TOUCHED))
end

-- Returns true if the record's person was erased.
local function is_erased(known)
  for _, owner in pairs(known) do
    if owner.erased then return true end
  end
  return false
end

-- Persons: ARGV from `first` to `last`.

local function erased_since(first, last, since)
  for at = first, last do
    local when = call('ZSCORE', key('erased'), ARGV[at])
    if when and tonumber(when) >= since then return true end
  end
  return false
end

local function note_persons(first, last, record)
  for at = first, last do
    call('SADD', key('records', ARGV[at]), record)
    call('ZADD', key('persons'), now, ARGV[at] .. record)
  end
end

-- Callbacks: `waiting` to be fanned out, `kept` for late owners, `unowned`, `known` without content; finally `gone`. A
-- waiting callback is in the list of that name, or in `holding` by the end of its lease. `callbacks:of` a record are
-- those with content, each by the event number of the last owner that it was fanned out for.

local function move_callback(name, record, from, to, due)
  local short = string.sub(name, 1, 16)
  call('ZREM', key('callbacks:' .. from), name)
  if from == 'waiting' then call('ZREM', key('callbacks:holding'), name) end
  if from == 'unowned' then call('HDEL', key('callbacks:short'), short) end
  if to == 'known' or to == 'gone' then call('ZREM', key('callbacks:of', record), name) end
  if to == 'gone' then
    call('DEL', key('callback', name))
    return
  end
  if to == 'known' then call('HDEL', key('callback', name), 'content', 'id') end
  if to == 'unowned' then call('HSET', key('callbacks:short'), short, name) end
  call('HSET', key('callback', name), 'standing', to, 'due', due)
  call('ZADD', key('callbacks:' .. to), due, name)
end

-- Releases the callbacks that were fanned out without the newest owner, `most` at most, and returns their number.
local function release(record, most)
  local of, last = key('callbacks:of', record), touched(record)
  local names = call('ZRANGEBYSCORE', of, '-inf', '(' .. last, 'LIMIT', 0, most)
  for _, name in ipairs(names) do
    call('ZADD', of, last, name)
    local standing = call('HGET', key('callback', name), 'standing')
    if not standing then
      call('ZREM', of, name)
    elseif standing == 'waiting' then
      call('HSET', key('callback', name), 'due', now)
      -- The claimant of the callback will find that an owner was added.
      call('ZADD', key('callbacks:waiting'), 'XX', now, name)
    else
      move_callback(name, record, standing, 'waiting', now)
    end
  end
  return #names
end

-- Sessions: a hash for each {holder, secret, last}, where `last` is the latest end. `sessions` has all of them by their
-- ends, and `sessions:of` those of a holder.

local function set_session_end(name, holder, ends)
  call('ZADD', key('sessions'), ends, name)
  call('ZADD', key('sessions:of', holder), ends, name)
end

local function forget_session(name)
  local holder = call('HGET', key('session', name), 'holder')
  if holder then call('ZREM', key('sessions:of', holder), name) end
  call('ZREM', key('sessions'), name)
  call('DEL', key('session', name))
end

-- Endpoints are named `tenant:type`. `failing` has the time of an endpoint's first failure since its last success;
-- `pauses` has {reason, since, probe} of each paused endpoint, where `probe` is the time of its next probe.

local function endpoint(tenant, kind)
  return tenant .. ':' .. kind
end

local function pause_of(endpoint)
  local pause = call('HGET', key('pauses'), endpoint)
  return pause and cmsgpack.unpack(pause)
end

local function set_pause(endpoint, pause)
  call('HSET', key('pauses'), endpoint, cmsgpack.pack(pause))
end

-- Deliveries: `queued`, `dead`, `delivered`, `known` without content; finally `gone`. Each status except the last has a
-- list of all, and one of each team. A queued delivery is `ready` by its due time, `held` by the end of its lease, or
-- `parked` by the time of its queueing, if it became due while its endpoint was paused. `age` of an endpoint has all
-- its queued deliveries by the time of their queueing.

-- The bytes of each team's queued deliveries: `outbox:bytes`, by team. They are counted again from zero after every
-- empty queue.
local function weigh(tenant, bytes)
  if bytes ~= 0 then call('HINCRBY', key('outbox:bytes'), tenant, bytes) end
  if call('ZCARD', key('deliveries:queued', tenant)) == 0 then call('HDEL', key('outbox:bytes'), tenant) end
end

local function enlist(id, tenant, standing, due)
  call('ZADD', key('deliveries:' .. standing), due, id)
  if standing ~= 'known' then call('ZADD', key('deliveries:' .. standing, tenant), due, id) end
end

local function move_delivery(id, tenant, record, from, to, due)
  local name = key('delivery', id)
  local of = call('HMGET', name, 'kind', 'queued')
  local endpoint = endpoint(tenant, of[1] or '')
  call('ZREM', key('parked', endpoint), id)
  call('ZREM', key('deliveries:' .. from), id)
  call('ZREM', key('deliveries:' .. from, tenant), id)
  if from == 'queued' and to ~= 'queued' then
    weigh(tenant, -call('HSTRLEN', name, 'content'))
    call('ZREM', key('ready', tenant), id)
    call('ZREM', key('held', tenant), id)
    call('ZREM', key('deliveries:received'), id)
    call('ZREM', key('age', endpoint), id)
  end
  if to == 'known' or to == 'gone' then call('SREM', key('deliveries:of', record), id) end
  if to == 'gone' then
    call('DEL', name)
    return
  end
  if to == 'known' then call('HDEL', name, 'content', 'id') end
  call('HSET', name, 'standing', to, 'due', due)
  enlist(id, tenant, to, due)
  if to == 'queued' then
    if from ~= 'queued' then weigh(tenant, call('HSTRLEN', name, 'content')) end
    call('ZADD', key('deliveries:received'), call('HGET', name, 'received'), id)
    call('ZADD', key('age', endpoint), of[2] or now, id)
    call('SADD', key('tenants'), tenant)
    -- The claimant of the delivery keeps it.
    if not call('ZSCORE', key('held', tenant), id) then call('ZADD', key('ready', tenant), due, id) end
  end
end

-- Stores the delivery in ARGV[at] to ARGV[at + 5], unless it exists in any status. Answers `queued`, `known`, or `full`
-- if the team's outbox has no room for it (ARGV[bounds]: deliveries, then bytes); with `keep` it is stored as a dead
-- letter then.
local function insert_delivery(at, bounds, record, received, fleeting, keep)
  local id, tenant, content = ARGV[at], ARGV[at + 1], ARGV[at + 4]
  local name = key('delivery', id)
  if call('EXISTS', name) == 1 then return 'known' end
  local full = call('ZCARD', key('deliveries:queued', tenant)) >= tonumber(ARGV[bounds])
    or number(call('HGET', key('outbox:bytes'), tenant)) + #content > tonumber(ARGV[bounds + 1])
  if full and not keep then return 'full' end
  -- The content of an erased person is stored only until it is delivered.
  local standing = full and (fleeting and 'known' or 'dead') or 'queued'
  call('HSET', name, 'record', record, 'tenant', tenant, 'account', ARGV[at + 2], 'kind', ARGV[at + 3],
    'content', content, 'id', ARGV[at + 5], 'standing', standing, 'due', now, 'attempts', 0,
    'received', received, 'queued', now, 'fleeting', fleeting and '1' or '')
  if standing == 'known' then call('HDEL', name, 'content', 'id') end
  call('SADD', key('tenants'), tenant)
  if standing ~= 'known' then call('SADD', key('deliveries:of', record), id) end
  enlist(id, tenant, standing, now)
  if full then return 'full' end
  call('ZADD', key('deliveries:received'), received, id)
  call('ZADD', key('ready', tenant), now, id)
  call('ZADD', key('age', endpoint(tenant, ARGV[at + 3])), now, id)
  weigh(tenant, #content)
  return 'queued'
end
