-- Acquire the oldest message that waits to be sent, or report that it was sent.
--
-- ARGV
--   verb        'take' | 'done'
--   sending_ms  take: time that the sender has for the message
--   stale_ms    take: age at which a message is dropped
--   message_id  done: the message's id
-- Keys     fleet:alerts:outbox, fleet:alerts:sending, fleet:alerts:suppressed
-- Returns  take: the message (JSON), or '' when none waits or another sender has it;
--          done: 1, or 0 when it was gone already
-- Invariants
--   One sender has a message at a time; it stays until it was sent, so a killed sender loses none
--   and at worst one is sent twice.

local head = redis.call('LINDEX', 'fleet:alerts:outbox', 0)

if ARG.verb == 'take' then
  while head and cjson.decode(head).at_ms < NOW - tonumber(ARG.stale_ms) do
    redis.call('LPOP', 'fleet:alerts:outbox')
    redis.call('INCR', 'fleet:alerts:suppressed')
    redis.call('PEXPIRE', 'fleet:alerts:suppressed', 86400000)
    head = redis.call('LINDEX', 'fleet:alerts:outbox', 0)
  end
  if not head or not once('fleet:alerts:sending', ARG.sending_ms) then
    return ''
  end
  return head
end

if not head or cjson.decode(head).id ~= ARG.message_id then return 0 end
redis.call('LPOP', 'fleet:alerts:outbox')
redis.call('DEL', 'fleet:alerts:sending')
return 1
