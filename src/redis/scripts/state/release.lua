-- ARGV: record, callbacks to release at the most. Answers how many it released.
return {now, release(ARGV[2], tonumber(ARGV[3]))}
