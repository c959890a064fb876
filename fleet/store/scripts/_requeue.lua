-- How a dispatch that waits for its next attempt is queued for it. Put after `_lib.lua` in the scripts
-- whose legend says `With`.
--
-- Keys     fleet:retry

-- In its old place, whether the attempt is due or not; `extra` goes into the bus entry.
local function try_again(record, extra)
  redis.call('ZREM', 'fleet:retry', record.id)
  redis.call('HDEL', dispatch_key(record.id), 'retry_at_ms')
  move(record, 'queued', {'queued_ms', NOW})
  emit('dispatch_queued', plus(who(record), extra))
  offer(record)
end
