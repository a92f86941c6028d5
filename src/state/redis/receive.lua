-- ARGV: name, record, account, kind, content, id, persons. Answers whether it is new.
local name, record = ARGV[3], ARGV[4]
if call('EXISTS', key('callback', name)) == 1 then return {now, 0} end
local known = owners(record)
local fleeting = is_erased(known) or next(known) == nil and erased_since(9, #ARGV, -math.huge)
call('HSET', key('callback', name), 'record', record, 'account', ARGV[5], 'kind', ARGV[6], 'content', ARGV[7],
  'id', ARGV[8], 'standing', 'waiting', 'due', now, 'received', now, 'fleeting', fleeting and '1' or '')
call('ZADD', key('callbacks:waiting'), now, name)
call('ZADD', key('callbacks:of', record), touched(record), name)
if not fleeting then note_persons(9, #ARGV, record) end
return {now, 1}
