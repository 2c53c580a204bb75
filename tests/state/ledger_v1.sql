-- A ledger of version 1, as SQLite tells it: triggers kept its sums.
CREATE TABLE processes (number INTEGER PRIMARY KEY AUTOINCREMENT, pid INTEGER NOT NULL, started TEXT NOT NULL);
CREATE TABLE turns (
    id INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL,
    key TEXT NOT NULL,
    key_name TEXT NOT NULL,
    dialect TEXT NOT NULL,
    asked TEXT NOT NULL,
    began_at REAL NOT NULL,
    streamed INTEGER NOT NULL,
    used TEXT NOT NULL,
    upstream TEXT NOT NULL,
    account TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'completed', 'interrupted', 'failed', 'rejected')),
    cause TEXT NOT NULL,
    reserved_tokens INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    usage_source TEXT NOT NULL,
    reported_prompt INTEGER,
    reported_completion INTEGER,
    counted_prompt INTEGER,
    counted_completion INTEGER,
    delivered_tokens INTEGER NOT NULL,
    delivered_source TEXT NOT NULL,
    cached_tokens INTEGER,
    reasoning_tokens INTEGER,
    queue_ms REAL,
    first_ms REAL,
    total_ms REAL,
    attempts INTEGER NOT NULL,
    checkpoint_at REAL,
    ended_at REAL,
    completion_id TEXT,
    why TEXT
);
CREATE INDEX turns_by_time ON turns (began_at, id);
CREATE INDEX turns_by_key ON turns (key, began_at, id);
CREATE INDEX turns_by_request ON turns (request_id);
CREATE INDEX turns_open ON turns (id) WHERE state = 'open';
CREATE TABLE daily (
    day TEXT NOT NULL, key TEXT NOT NULL, used TEXT NOT NULL, upstream TEXT NOT NULL, state TEXT NOT NULL,
    requests INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL,
    PRIMARY KEY (day, key, used, upstream, state)) WITHOUT ROWID;
CREATE TABLE allow_lists (id INTEGER PRIMARY KEY, models TEXT NOT NULL UNIQUE);
CREATE TABLE keys (
    id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, name TEXT NOT NULL, allow_list INTEGER NOT NULL DEFAULT 0,
    max_tokens INTEGER, max_prompt_tokens INTEGER, max_completion_tokens INTEGER, active_days INTEGER,
    created_at REAL, expires_at REAL, deleted_at REAL, first_used_at REAL, last_used_at REAL,
    requests INTEGER NOT NULL DEFAULT 0, prompt_tokens INTEGER NOT NULL DEFAULT 0, completion_tokens INTEGER NOT NULL DEFAULT 0);
CREATE TRIGGER turn_written_whole AFTER INSERT ON turns WHEN NEW.state <> 'open' BEGIN 
    INSERT INTO daily VALUES (date(coalesce(NEW.ended_at, NEW.began_at), 'unixepoch'), NEW.key, NEW.used, NEW.upstream,
        NEW.state, 1, NEW.prompt_tokens, NEW.completion_tokens, coalesce(NEW.cached_tokens, 0), coalesce(NEW.reasoning_tokens, 0))
    ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, prompt_tokens = prompt_tokens + excluded.prompt_tokens,
        completion_tokens = completion_tokens + excluded.completion_tokens,
        cached_tokens = cached_tokens + excluded.cached_tokens, reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens;
    INSERT INTO keys (key, name, first_used_at, last_used_at, requests, prompt_tokens, completion_tokens)
    SELECT NEW.key, NEW.key_name, NEW.began_at, NEW.began_at, 1,
        NEW.prompt_tokens, NEW.completion_tokens WHERE NEW.state <> 'rejected'
    ON CONFLICT (key) DO UPDATE SET requests = requests + excluded.requests,
        first_used_at = min(coalesce(first_used_at, excluded.first_used_at), excluded.first_used_at),
        last_used_at = max(coalesce(last_used_at, excluded.last_used_at), excluded.last_used_at),
        prompt_tokens = prompt_tokens + excluded.prompt_tokens,
        completion_tokens = completion_tokens + excluded.completion_tokens;
     END;
CREATE TRIGGER turn_closed AFTER UPDATE ON turns WHEN OLD.state = 'open' AND NEW.state <> 'open'
    BEGIN 
    INSERT INTO daily VALUES (date(coalesce(NEW.ended_at, NEW.began_at), 'unixepoch'), NEW.key, NEW.used, NEW.upstream,
        NEW.state, 1, NEW.prompt_tokens, NEW.completion_tokens, coalesce(NEW.cached_tokens, 0), coalesce(NEW.reasoning_tokens, 0))
    ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, prompt_tokens = prompt_tokens + excluded.prompt_tokens,
        completion_tokens = completion_tokens + excluded.completion_tokens,
        cached_tokens = cached_tokens + excluded.cached_tokens, reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens;
    INSERT INTO keys (key, name, first_used_at, last_used_at, requests, prompt_tokens, completion_tokens)
    SELECT NEW.key, NEW.key_name, NEW.began_at, NEW.began_at, 1,
        NEW.prompt_tokens, NEW.completion_tokens WHERE NEW.state <> 'rejected'
    ON CONFLICT (key) DO UPDATE SET requests = requests + excluded.requests,
        first_used_at = min(coalesce(first_used_at, excluded.first_used_at), excluded.first_used_at),
        last_used_at = max(coalesce(last_used_at, excluded.last_used_at), excluded.last_used_at),
        prompt_tokens = prompt_tokens + excluded.prompt_tokens,
        completion_tokens = completion_tokens + excluded.completion_tokens;
     END;
CREATE TRIGGER turn_corrected AFTER UPDATE ON turns WHEN OLD.state <> 'open' AND (OLD.state <> NEW.state OR
    OLD.prompt_tokens <> NEW.prompt_tokens OR OLD.completion_tokens <> NEW.completion_tokens OR OLD.ended_at <> NEW.ended_at)
    BEGIN 
    INSERT INTO daily VALUES (date(coalesce(OLD.ended_at, OLD.began_at), 'unixepoch'), OLD.key, OLD.used, OLD.upstream,
        OLD.state, -1, -OLD.prompt_tokens, -OLD.completion_tokens, -coalesce(OLD.cached_tokens, 0), -coalesce(OLD.reasoning_tokens, 0))
    ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, prompt_tokens = prompt_tokens + excluded.prompt_tokens,
        completion_tokens = completion_tokens + excluded.completion_tokens,
        cached_tokens = cached_tokens + excluded.cached_tokens, reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens;
    INSERT INTO keys (key, name, first_used_at, last_used_at, requests, prompt_tokens, completion_tokens)
    SELECT OLD.key, OLD.key_name, OLD.began_at, OLD.began_at, -1,
        -OLD.prompt_tokens, -OLD.completion_tokens WHERE OLD.state <> 'rejected'
    ON CONFLICT (key) DO UPDATE SET requests = requests + excluded.requests,
        first_used_at = min(coalesce(first_used_at, excluded.first_used_at), excluded.first_used_at),
        last_used_at = max(coalesce(last_used_at, excluded.last_used_at), excluded.last_used_at),
        prompt_tokens = prompt_tokens + excluded.prompt_tokens,
        completion_tokens = completion_tokens + excluded.completion_tokens;
     
    INSERT INTO daily VALUES (date(coalesce(NEW.ended_at, NEW.began_at), 'unixepoch'), NEW.key, NEW.used, NEW.upstream,
        NEW.state, 1, NEW.prompt_tokens, NEW.completion_tokens, coalesce(NEW.cached_tokens, 0), coalesce(NEW.reasoning_tokens, 0))
    ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, prompt_tokens = prompt_tokens + excluded.prompt_tokens,
        completion_tokens = completion_tokens + excluded.completion_tokens,
        cached_tokens = cached_tokens + excluded.cached_tokens, reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens;
    INSERT INTO keys (key, name, first_used_at, last_used_at, requests, prompt_tokens, completion_tokens)
    SELECT NEW.key, NEW.key_name, NEW.began_at, NEW.began_at, 1,
        NEW.prompt_tokens, NEW.completion_tokens WHERE NEW.state <> 'rejected'
    ON CONFLICT (key) DO UPDATE SET requests = requests + excluded.requests,
        first_used_at = min(coalesce(first_used_at, excluded.first_used_at), excluded.first_used_at),
        last_used_at = max(coalesce(last_used_at, excluded.last_used_at), excluded.last_used_at),
        prompt_tokens = prompt_tokens + excluded.prompt_tokens,
        completion_tokens = completion_tokens + excluded.completion_tokens;
     END;
CREATE VIEW inference_model_api_key AS SELECT
    id, name AS api_key_name, allow_list AS inference_model_id, key AS api_key, max_tokens AS max_token_quota,
    max_prompt_tokens AS max_prompt_tokens_quota, max_completion_tokens AS max_completion_tokens_quota, active_days,
    datetime(coalesce(created_at, first_used_at, 0), 'unixepoch') AS created_at,
    datetime(last_used_at, 'unixepoch') AS last_used_at,
    datetime(expires_at, 'unixepoch') AS expires_at, datetime(deleted_at, 'unixepoch') AS deleted_at,
    deleted_at IS NOT NULL AS is_deleted FROM keys;
CREATE VIEW inference_model_api_key_token_usage AS SELECT
    turns.id AS id, completion_id AS completions_chunk_id, keys.id AS api_key_id, turns.prompt_tokens AS prompt_tokens,
    turns.completion_tokens AS completion_tokens, CASE state WHEN 'completed' THEN 'completed' ELSE 'interrupted' END AS type,
    datetime(began_at, 'unixepoch') AS created_at
    FROM turns JOIN keys ON keys.key = turns.key
    WHERE state IN ('completed', 'interrupted') OR (state = 'failed' AND turns.prompt_tokens + turns.completion_tokens > 0);
PRAGMA user_version = 1;
