-- ARGV: name.
forget_session(ARGV[2])
return {now, 0}
