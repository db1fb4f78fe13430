create table t(id integer primary key, k integer, name text);
create index t_k on t(k);
begin;
with recursive n(i) as (select 1 union all select i + 1 from n where i < 40000)
    insert into t select i, (i * 7919) % 10007, 'name ' || (i * 31 % 977) from n;
commit;
select count(*), sum(k) from t where k between 1000 and 5000;
select name, count(*), avg(k) from t group by name order by 2 desc, 1 limit 5;
select count(*) from t a join t b on a.k = b.id where b.k < 2000;
update t set name = upper(name) where k % 3 = 0;
delete from t where k > 9000;
select count(*), max(name), sum(length(name)) from t;
