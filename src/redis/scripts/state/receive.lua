-- ARGV: name, record, account, kind, content, id, persons. Answers 1 if the callback is new.
local name, record = ARGV[2], ARGV[3]
if call('EXISTS', key('callback', name)) == 1 then
  -- WAIT covers only what was written: a repeat that writes nothing would be acknowledged without replicas.
  call('HSET', key('callback', name), 'repeated', now)
  return {now, 0}
end
local known = owners(record)
local fleeting = is_erased(known) or next(known) == nil and erased_since(8, #ARGV, -math.huge)
call('HSET', key('callback', name), 'record', record, 'account', ARGV[4], 'kind', ARGV[5], 'content', ARGV[6],
  'id', ARGV[7], 'standing', 'waiting', 'due', now, 'received', now, 'fleeting', fleeting and '1' or '')
call('ZADD', key('callbacks:waiting'), now, name)
call('ZADD', key('callbacks:of', record), touched(record), name)
if not fleeting then note_persons(8, #ARGV, record) end
return {now, 1}
